"""An unlabelled, possibly dirty folder: what is odd in it, twice in it, or wrongly sorted."""

from oddment.auditing.checks import Duplicates, Leak, Oddity
from oddment.auditing.classes import Suspect
from oddment.auditing.judge import Chosen, Rule
from oddment.auditing.run import Audit, AuditOptions, audit_images

__all__ = ["Audit", "AuditOptions", "Chosen", "Duplicates", "Leak", "Oddity", "Rule", "Suspect", "audit_images"]
