"""Images from requests: hostile bytes end here."""
