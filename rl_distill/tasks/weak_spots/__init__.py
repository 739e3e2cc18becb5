"""Tasks about what distilled students are known to lose first: long prompts, and languages other than English."""
