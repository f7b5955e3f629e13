"""What every floor stands on: errors, configuration, random numbers, files, processes."""
