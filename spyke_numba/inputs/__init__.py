"""Input: from files, from pictures, and made up."""
