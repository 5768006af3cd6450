"""What a launch costs, measured: `make bench`. Not part of the test run."""
