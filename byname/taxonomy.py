"""stub; helper writes"""
