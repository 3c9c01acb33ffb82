# The page as one C array: page.html with page.css and the scripts put in where it names them, and the hashes that let a
# browser run these and nothing else. As a script (cmake -P) it makes the files, included it says how.
if(NOT CMAKE_SCRIPT_MODE_FILE)
  set(from ${CMAKE_CURRENT_LIST_DIR}/page)
  set(to ${CMAKE_BINARY_DIR}/page/http)
  file(GLOB parts CONFIGURE_DEPENDS ${from}/*)
  add_custom_command(
    OUTPUT ${to}/page_source.c ${to}/page_source.h
    COMMAND ${CMAKE_COMMAND} -D FROM=${from} -D TO=${to} -P ${CMAKE_CURRENT_LIST_FILE}
    DEPENDS ${parts} ${CMAKE_CURRENT_LIST_FILE} VERBATIM)
  set(SKALD_PAGE ${to}/page_source.c ${to}/page_source.h)
  return()
endif()

# hexadecimal digits to base64
function(base64 hex out)
  set(alphabet ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/)
  string(LENGTH ${hex} length)
  math(EXPR missing "(6 - ${length} % 6) % 6") # digits: 0, 2 or 4
  string(REPEAT 0 ${missing} zeros)
  string(REGEX MATCHALL "......" groups "${hex}${zeros}")
  set(text "")
  foreach(group ${groups})
    foreach(shift 18 12 6 0)
      math(EXPR digit "(0x${group} >> ${shift}) & 63")
      string(SUBSTRING ${alphabet} ${digit} 1 letter)
      string(APPEND text ${letter})
    endforeach()
  endforeach()
  math(EXPR padding "${missing} / 2")
  string(LENGTH ${text} length)
  math(EXPR kept "${length} - ${padding}")
  string(SUBSTRING ${text} 0 ${kept} text)
  string(REPEAT = ${padding} end)
  set(${out} ${text}${end} PARENT_SCOPE)
endfunction()

# A text as a hash source; an argument, a list or a variable reference would be eaten by lists, so by name.
function(hash_of name out)
  string(SHA256 hex "${${name}}")
  base64(${hex} text)
  set(${out} "sha256-${text}" PARENT_SCOPE)
endfunction()

file(READ ${FROM}/page.html page)
file(READ ${FROM}/page.css style)
set(script "\n'use strict';\n(function () {\n")
foreach(part draw plots lanes table page)
  file(READ ${FROM}/${part}.js text)
  string(APPEND script "${text}")
endforeach()
string(APPEND script "})();\n")
set(style "\n${style}")
string(REPLACE "<style></style>" "<style>${style}</style>" page "${page}")
string(REPLACE "<script></script>" "<script>${script}</script>" page "${page}")
hash_of(style style_hash)
hash_of(script script_hash)

file(WRITE ${TO}/page_source.html "${page}")
file(READ ${TO}/page_source.html bytes HEX)
string(LENGTH "${bytes}" size)
math(EXPR size "${size} / 2")
string(REGEX REPLACE "(................................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${TO}/page_source.c
     "#include \"page_source.h\"\n\nconst unsigned char skald_page_source[] = {\n${bytes}\n};\n"
     "const unsigned long skald_page_source_size = ${size};\n")
file(WRITE ${TO}/page_source.h
     "/* Made by src/http/embed.cmake. */\n#define SKALD_PAGE_SCRIPT_HASH \"${script_hash}\"\n"
     "#define SKALD_PAGE_STYLE_HASH \"${style_hash}\"\n"
     "extern const unsigned char skald_page_source[];\nextern const unsigned long skald_page_source_size;\n")
