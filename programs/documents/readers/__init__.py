"""One file per format; each makes a Document of a file's bytes. read.py chooses among them."""
