"""What the demo reports at its end: figures, verdict, plot, page."""
