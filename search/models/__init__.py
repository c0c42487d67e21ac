"""What is asked of networks as files, without a study: side by side, how fast, what they see, what can go."""
