"""The console command `gpicl`, with one file for each subcommand."""
