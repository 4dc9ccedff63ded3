"""One loader per checkpoint format; none of them runs code from a file."""
