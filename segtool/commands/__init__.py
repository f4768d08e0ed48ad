"""What each command does, from what the user names to what is said and written; `segtool.cli` holds the options."""
