"""The console command `gpicl`, one file a subcommand."""
