"""What a run says about itself while it trains: journal, curves, collapsed classes, trackers."""
