"""Stage audit: membership-inference attacks with their controls."""
