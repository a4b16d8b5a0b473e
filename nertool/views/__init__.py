"""Everything that is drawn for a person: terminal, HTML and pictures."""
