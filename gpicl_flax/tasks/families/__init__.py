"""Task families, one a file, behind one small interface (`family.TaskFamily`)."""
