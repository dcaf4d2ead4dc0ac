def test_a(tiny_model_folder): print(tiny_model_folder)
def test_b(tiny_views_folder): pass
def test_c(tiny_plain_folder): pass
