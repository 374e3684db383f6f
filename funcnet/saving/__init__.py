"""Saving: a tree in one file, written in one piece or not at all, checked when it is read, and never unpickled."""
