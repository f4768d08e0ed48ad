"""What has to do with the machine: files, streams and the terminal, memory, signals, threads and processes."""
