"""A checkpoint made wider by whole copies of what it has, so that it computes what it did."""
