"""One run: from its settings to DONE, its evaluation anew, its status, its inspection."""
