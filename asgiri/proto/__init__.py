"""The asyncio side: transport to codec to session, and back."""
