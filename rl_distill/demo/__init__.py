"""The synthetic world of `make demo`: problems made by rule, and the tiny teacher and student that solve them."""
