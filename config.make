# Appended to nginx's objs/Makefile by auto/make: "make modules" builds and places our shared object.
case "$NGX_OBJS" in
    /*) llm_objs="$NGX_OBJS" ;;
    *) llm_objs="$PWD/$NGX_OBJS" ;;
esac
cat << END                                                    >> $NGX_MAKEFILE

modules: $NGX_OBJS/ngx_http_llm_dispatch_module.so

.PHONY: $NGX_OBJS/ngx_http_llm_dispatch_module.so
$NGX_OBJS/ngx_http_llm_dispatch_module.so:
	cmake -S $ngx_addon_dir -B $llm_objs/llm-dispatch -DCMAKE_BUILD_TYPE=RelWithDebInfo \\
		-DLLM_ENGINE=OFF -DLLM_TESTS=OFF -DNGINX_BUILD_DIR=$llm_objs -DNGINX_SOURCE_DIR=$PWD
	cmake --build $llm_objs/llm-dispatch --target ngx_http_llm_dispatch_module
	cp $llm_objs/llm-dispatch/ngx_http_llm_dispatch_module.so $llm_objs/
END
