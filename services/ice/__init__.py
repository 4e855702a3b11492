"""The ICE side: missed hearings in the court's docket become notices that HHS receives."""
