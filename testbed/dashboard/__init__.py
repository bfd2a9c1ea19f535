"""What a results file holds, as a web page."""
