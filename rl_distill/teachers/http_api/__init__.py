"""Over HTTP: the client that outlasts outages, and an API that writes texts."""
