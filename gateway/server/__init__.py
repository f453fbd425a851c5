"""The listening ports: uvicorn's protocol, connections, bounds on what a request may take, and each port's application."""
