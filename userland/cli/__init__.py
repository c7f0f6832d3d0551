"""The command line and the shell: one table of commands, one parser, one program per face."""
