"""One module per file of calls: what each syscall does."""
