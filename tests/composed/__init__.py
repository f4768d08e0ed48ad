"""Data sets composed of independent choices, with the truth of every pixel, and a slow count of scores."""
