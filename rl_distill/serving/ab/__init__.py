"""Users divided among variants, and a test of the variants that may be looked at after every outcome."""
