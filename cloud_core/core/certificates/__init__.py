"""Certificates: trust, chains, our own authority, revocation, enrolment, expiry."""
