"""One run: from its settings to DONE, its repeated evaluation, its status and its inspection."""
