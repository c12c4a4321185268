"""Tests of the embedded model: what is shipped, the drawings behind it, and its training."""
