"""Labelled cases at several efforts: accuracy with honest intervals, and what it cost."""
