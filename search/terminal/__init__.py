"""Progress of long work on the terminal, drawn by a separate thread so that the work never waits for the screen."""
