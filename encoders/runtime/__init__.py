"""What all packages use: errors, configuration, random numbers, files, processes, the command-line boundary."""
