"""What tests share: real stores, engines and gateways started for them, and ways to look at what they did."""
