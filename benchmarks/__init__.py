"""Measurements of the library: exactness, speed and accuracy. See README.md beside this file."""
