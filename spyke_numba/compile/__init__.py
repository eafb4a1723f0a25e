"""From a specification to the text that backends compile."""
