"""What is counted and measured: the catalogue, the words in shared memory that it is written to, and the sums."""
