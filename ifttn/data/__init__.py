"""From video files to batches of snippets."""
