"""What people see while they wait: the progress line, text tables, durations, the logs of libraries."""
