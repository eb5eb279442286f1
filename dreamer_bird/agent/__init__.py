"""The algorithm: world model, imagination, the three objectives, and how an agent learns."""
