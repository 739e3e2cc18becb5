"""The same problem in other words or with other numbers, by rules, with an answer that is known or computed anew."""
