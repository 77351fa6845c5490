"""From artefacts to tidy tables, and what is selected and compared of them."""
