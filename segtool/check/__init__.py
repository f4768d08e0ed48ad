"""What `check` does: it looks at all files of a data set and tells each fault with a code, a file and a remedy."""
