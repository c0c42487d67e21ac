"""What a person sees of long work: progress, drawn by a thread that may wait for the screen."""
