"""What clusters are started with: an AWS account, a Kubernetes job and its image."""
